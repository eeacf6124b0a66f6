//! Work: directives, calls and commands over mesh streams.
