"""What the launch files share: checked arguments, and supervision of the nodes they start."""
