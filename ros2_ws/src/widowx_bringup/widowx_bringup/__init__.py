"""Building blocks of the launch files that run a policy on a WidowX 250 6DOF."""
