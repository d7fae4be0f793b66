"""Importing the environments prints nothing of MJX's, but whatever else is said."""

import importlib

import envs


def test_what_mjx_says_of_warp_is_left_out(monkeypatch, capsys):
    def import_module(name):
        assert name == "mujoco.mjx"
        print("Failed to import warp: No module named 'warp'")
        print("Failed to import mujoco_warp: No module named 'warp'")
        print("Failed to import jax")

    monkeypatch.setattr(importlib, "import_module", import_module)
    envs._import_mjx()
    assert capsys.readouterr().out == "Failed to import jax\n"
