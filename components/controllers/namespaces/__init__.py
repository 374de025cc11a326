"""Controllers of namespaces: what each one gets when it is made, and how it is emptied when it goes."""
