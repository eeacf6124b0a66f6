//! Messages through their bytes and back, as between two machines.

use std::collections::HashMap;

use receptor_quic::router::Message;

/// Records that are kept at most.
const KEPT: usize = 100_000;

/// Encodes and reads each message; each record once, for thousands of nodes repeat the same bytes.
#[derive(Default)]
pub(super) struct Post {
    /// What was read of each record, by the id of its advertisement, and the length of its frame.
    records: HashMap<u128, (Message, usize)>,
}

impl Post {
    /// The message as it arrives, and the bytes that it takes. None: of a type that nobody knows.
    pub(super) fn carry(&mut self, message: Message) -> Result<Option<(Message, usize)>, String> {
        let id = match &message {
            Message::Update(advertisement) => Some(advertisement.id().as_u128()),
            _ => None,
        };
        if let Some((known, len)) =
            id.and_then(|id| self.records.get(&id)).filter(|known| known.0 == message)
        {
            return Ok(Some((known.clone(), *len)));
        }
        let frame = message.encode();
        let read = Message::decode(&frame).map_err(|error| error.to_string())?;
        let Some(read) = read.map(|read| (read, frame.len())) else { return Ok(None) };
        if let Some(id) = id {
            if self.records.len() >= KEPT {
                self.records.clear();
            }
            self.records.insert(id, read.clone());
        }
        Ok(Some(read))
    }
}
