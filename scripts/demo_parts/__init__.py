"""The parts of scripts/demo and scripts/passkey-demo: the text they train on, sizes and settings, stages, the page."""
