"""Finished quadrupeds evaluated: every fault, leg, set of joints and speed."""
