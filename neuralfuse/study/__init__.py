"""A study and its folder: what is asked, what is made for it, what lies where."""
