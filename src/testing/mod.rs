//! A virtual network of UDP sockets under real quinn, in virtual time.
