"""Files that are whole or not there: checkpoints, atomic writing, seconds by stage."""
