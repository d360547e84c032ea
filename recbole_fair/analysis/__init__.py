"""What evaluations say when put side by side: data out, no drawing."""
