"""Parts of `train.dfkd`: hosts, the stage around them, dictionaries, reports."""
