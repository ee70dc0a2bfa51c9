"""Parts of the objective that are ours, a file each; a recipe's table `[parts.NAME]` switches on NAME.py."""
