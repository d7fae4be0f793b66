"""Finished quadrupeds judged: every fault, leg, set of joints and speed."""
