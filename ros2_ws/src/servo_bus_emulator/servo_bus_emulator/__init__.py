"""A DYNAMIXEL Protocol 2.0 bus with emulated servos behind a pseudo-terminal."""
