"""The Centrifuge client protocol, without a socket, a loop or a gateway. README.md says what each module is for."""
