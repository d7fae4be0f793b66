"""What a run is: frozen dataclasses with named presets, no behaviour."""
