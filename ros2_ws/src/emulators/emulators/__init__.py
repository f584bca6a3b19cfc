"""What emulators of devices on a serial line share: port, line noise, control socket."""
