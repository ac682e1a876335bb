"""The parts of scripts/demo: the text it trains on, its sizes and settings, the page it writes."""
