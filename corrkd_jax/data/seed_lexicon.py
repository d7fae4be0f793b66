"""Small list of everyday English words of sentiment, in lower case.

It was written for this project and given to the public domain (CC0 1.0). It is a start, not a
complete lexicon: for real work give `corrkd_jax.data.words.lexicon` a list of your own.
"""

_NEGATIVE = """
abuse abysmal afraid agony angry annoy annoyed annoying anxious appalling ashamed atrocious awful
awkward bad badly bland bleak bored boring broken chaotic cheesy clumsy complain confused confusing
corny cowardly crap crappy creepy cringe cruel damage damaged dangerous depressed depressing
despair desperate despise despised dire dirty disappoint disappointed disappointing disappointment
disaster disgust disgusting dislike disliked dismal distracting distress dreadful dull dumb
embarrassed embarrassing empty evil excruciating fail failed fails failure fake fear flawed flop
forced forgettable frightening frustrated frustrating garbage gloomy grief gross grumpy guilty harm
harmful hate hated hates hideous hopeless horrendous horrible horribly horrid hurt idiotic ignorant
inferior irritating jealous junk lame lazy lonely loser lousy mad mediocre mess messy miserable
misery mistake monotonous nasty negative nervous nonsense obnoxious offensive outrage overrated
pain painful pathetic pointless poor poorly predictable pretentious problem rage regret reject
ridiculous rotten rubbish rude ruin ruined sad sadly scared scary shallow shame shameful sick silly
slow sorrow stupid suck sucked sucks suffer tasteless tedious terrible terribly tired tiresome
tragic trash trouble ugly unbearable unfortunate unfortunately unfunny unhappy uninteresting
unpleasant upset upsetting useless vile waste wasted weak weird worried worry worse worst worthless
wrong
"""

_POSITIVE = """
accomplished admirable admire adorable adore amaze amazed amazing amuse amused amusing appealing
applaud appreciate appreciated astonishing attractive awesome beautiful beautifully beauty beloved
best better blessed bold brave breathtaking bright brilliant brilliantly calm captivating celebrate
charm charming cheer cheerful clever comfort comfortable compelling confident congratulations cool
courage courageous cute dazzling decent delight delighted delightful dynamic eager easy effective
elegant enchanting energetic engaging enjoy enjoyable enjoyed enjoying enjoys entertain entertained
entertaining enthusiastic epic excellent exceptional excited exciting exquisite fabulous fantastic
fascinating favorite favourite fine flawless fresh friendly fun funny generous genius gentle
genuine glad glorious good gorgeous graceful grateful great greatest handsome happily happy
heartwarming helpful hilarious honest hope hopeful ideal imaginative impress impressed impressive
incredible incredibly inspired inspiring intelligent interesting intriguing joy joyful kind laugh
laughed likable liked likes lively love loved lovely loves loving loyal lucky magical magnificent
marvelous masterful masterpiece memorable neat nice nicely outstanding passionate peaceful perfect
perfectly pleasant pleased pleasure positive powerful praise precious pretty proud recommend
recommended refreshing relaxed remarkable satisfied satisfying sensational smart smile solid
spectacular splendid strong stunning stylish sublime successful super superb superior sweet
talented terrific thank thankful thanks thrilled thrilling touching triumph unforgettable warm
welcome win winner wise witty won wonderful wonderfully worth worthwhile worthy wow
"""

NEGATIVE = tuple(_NEGATIVE.split())
POSITIVE = tuple(_POSITIVE.split())
