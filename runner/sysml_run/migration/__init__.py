"""Another trainer's configuration -> a recipe; every key of it is carried, or listed with the reason why not."""
