"""What is known about items and users: interactions, histories, popularity, groups, features, profiles."""
