"""What every part of the kit shares: setting up, words in two languages, safe text."""
