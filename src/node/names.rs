//! Arguments that are parsed.
use crate::id::{Directive, InvalidDirective, InvalidName};

/// A name that was given as itself, by reference, or as text.
pub(super) fn name<T>(name: impl TryInto<T, Error: Into<InvalidName>>) -> Result<T, InvalidName> {
    name.try_into().map_err(Into::into)
}

/// A directive that was given as itself, by reference, or as text.
pub(super) fn parse_directive(
    directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
) -> Result<Directive, InvalidDirective> {
    directive.try_into().map_err(Into::into)
}
