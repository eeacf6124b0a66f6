//! What the executor of the lab offers, and what comes out of it.

use uuid::Uuid;

/// Lines that `job:lines` writes, one every 20 ms.
const LINES: usize = 40;
/// The last number that `job:bulk` writes.
const NUMBERS: usize = 60_000;
/// The length of the payload of `job:bulk`, in bytes, beside the line with its tag.
const BULK: usize = 300_000;

/// A kind of job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Slow lines to both outputs.
    Lines,
    /// Its payload and as much again, as fast as it can.
    Bulk,
    /// A line, and exit status 7.
    Fails,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Lines, Self::Bulk, Self::Fails];

    pub(crate) fn directive(self) -> &'static str {
        match self {
            Self::Lines => "job:lines",
            Self::Bulk => "job:bulk",
            Self::Fails => "job:fails",
        }
    }

    /// The exit status of its command.
    pub(crate) fn status(self) -> i64 {
        if self == Self::Fails { 7 } else { 0 }
    }

    /// The payload of one whose tag this is: the tag on a line, and more.
    pub(crate) fn payload(self, tag: Uuid) -> Vec<u8> {
        let mut payload = format!("{tag}\n").into_bytes();
        if self == Self::Bulk {
            let seed = tag.as_u128() as u64;
            payload.extend(
                (0..BULK as u64)
                    .map(|at| mix(seed.wrapping_add(at / 8)).to_le_bytes()[at as usize % 8]),
            );
        }
        payload
    }

    /// What it writes to standard output.
    pub(crate) fn stdout(self, tag: Uuid) -> Vec<u8> {
        let mut text = String::new();
        match self {
            Self::Lines => (0..LINES).for_each(|line| text += &format!("{tag} line {line}\n")),
            Self::Bulk => {
                (1..=NUMBERS).for_each(|number| text += &format!("{number}\n"));
                let payload = self.payload(tag);
                let begin = payload.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
                return [&payload[begin..], text.as_bytes()].concat();
            }
            Self::Fails => text = format!("{tag} fails\n"),
        }
        text.into_bytes()
    }

    /// What it writes to standard error.
    pub(crate) fn stderr(self, tag: Uuid) -> Vec<u8> {
        let lines = if self == Self::Lines { LINES } else { 0 };
        (0..lines)
            .fold(String::new(), |text, line| text + &format!("{tag} err {line}\n"))
            .into_bytes()
    }
}

/// The executor's commands. Each writes its tag and its process id to the file `starts` first.
pub(crate) fn tables() -> String {
    let command = |name: &str, script: &str| {
        format!(
            "{name:?} = [\"sh\", \"-c\", '''read -r tag; echo \"$tag $$\" >> starts; {script}''']\n"
        )
    };
    let lines = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo \"$tag line $i\"; echo \"$tag err $i\" >&2; i=$((i+1)); sleep 0.02; done"
    );
    [
        "[command]\n".to_owned(),
        command("job:lines", &lines),
        command("job:bulk", &format!("cat; seq 1 {NUMBERS}")),
        command("job:fails", "echo \"$tag fails\"; exit 7"),
        command("job:gate", "echo started; until [ -e open ]; do sleep 0.02; done; echo ended"),
        command("job:long", "echo started; sleep 1000"),
        command(
            "job:stubborn",
            "trap \"\" TERM; setsid sleep 1000 & echo started; while :; do sleep 1; done",
        ),
        command("job:flood", "head -c 20000000 /dev/zero"),
    ]
    .concat()
}

/// SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
