"""Parts of `train.quadruped`: worlds, policies, a fault detector, and what evaluates them."""
