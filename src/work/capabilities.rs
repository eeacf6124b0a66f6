//! What a node says in its record that it can do: the directives it handles.

use bytes::Bytes;

use super::registry::Registry;
use crate::id::Directive;

/// The longest that is advertised, in bytes; directives beyond it are handled, and left out.
const MAX_LEN: usize = 3 * 1024;

/// A MessagePack array of the directives, in order, without the built-in ones, which every node
/// has.
pub(crate) fn capabilities(registry: &Registry) -> Bytes {
    let mut room = MAX_LEN;
    let directives: Vec<Directive> = registry
        .directives()
        .into_iter()
        .filter(|directive| directive.namespace() != "receptor")
        .take_while(|directive| {
            // Two bytes at most announce a text of this length.
            let needed = directive.as_str().len() + 2;
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        })
        .collect();
    rmp_serde::to_vec(&directives).expect("writing plain data to a vector cannot fail").into()
}

/// The directives in another node's capabilities; empty if they are of a kind that this version
/// does not know.
pub(crate) fn directives(capabilities: &[u8]) -> Vec<Directive> {
    rmp_serde::from_slice(capabilities).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_read_and_bounded() {
        let registry = Registry::new();
        let handler = async |_, _| Ok(());
        registry.handle("receptor:ping", handler).unwrap();
        registry.handle("text:shout", handler).unwrap();
        assert_eq!(directives(&capabilities(&registry)), ["text:shout".parse().unwrap()]);
        for n in 0..1_000 {
            registry.handle(format!("many:action-{n:04}"), handler).unwrap();
        }
        let many = capabilities(&registry);
        assert!(many.len() <= MAX_LEN + 5);
        assert!(directives(&many).len() > 100);
        assert!(directives(b"garbage").is_empty());
    }
}
