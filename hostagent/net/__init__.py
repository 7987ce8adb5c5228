"""Network drivers. So far only what the start-up checks read; PIF bring-up comes with the network work."""
