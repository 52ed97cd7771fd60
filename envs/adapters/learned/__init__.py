"""A model of the transitions that is learned while the agent acts."""
