//! Large databases are compared in parts: one digest per bucket of origins.

use std::fmt;
use std::sync::Arc;

use crate::id::NodeAddr;
use crate::router::record::Record;
use crate::router::record::compact::DecodeError;

/// About so many records fall into a bucket, or up to half as few.
const RECORDS_PER_BUCKET: u64 = 16;

/// The digests of a set of records, split into buckets by the leading bits of their origins'
/// addresses.
///
/// The digest of a bucket is the sum modulo 2^24 of the last three bytes of the ids. Two that
/// differ can have the same one, by chance (once in 16 million) or by design; the digest of all
/// tells, and then everything is compared. Longer ones would save less than they cost.
#[derive(Clone, PartialEq, Eq)]
pub struct Buckets(Vec<u32>);

/// Which of the buckets, by number.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketSet(Arc<[u8]>);

/// Into how many buckets so many records are split, as a power of two.
pub(crate) fn bits_for(count: u64) -> u32 {
    let buckets = count.div_ceil(RECORDS_PER_BUCKET).next_power_of_two();
    buckets.trailing_zeros().clamp(Buckets::MIN_BITS, Buckets::MAX_BITS)
}

impl Buckets {
    /// The fewest buckets, as a power of two: so many that their numbers fill a byte.
    pub const MIN_BITS: u32 = 3;

    /// The most buckets, as a power of two: enough for 65,536 records.
    pub const MAX_BITS: u32 = 12;

    /// Splits records into 2^`bits` buckets. Beyond the bounds, the bound counts.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>, bits: u32) -> Self {
        let bits = bits.clamp(Self::MIN_BITS, Self::MAX_BITS);
        let mut sums = vec![0u32; 1 << bits];
        for record in records {
            let sum = &mut sums[number(record.addr(), bits)];
            *sum = sum.wrapping_add(record.advertisement().id().as_u128() as u32) & 0xff_ffff;
        }
        Self(sums)
    }

    /// How many buckets there are, as a power of two.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.0.len().trailing_zeros()
    }

    /// The buckets in which the sets differ; all, if they are not split alike.
    #[must_use]
    pub fn differing(&self, other: &Self) -> BucketSet {
        let mut set = vec![0u8; self.0.len() / 8];
        for (number, sum) in self.0.iter().enumerate() {
            if self.bits() != other.bits() || other.0.get(number) != Some(sum) {
                set[number / 8] |= 0x80 >> (number % 8);
            }
        }
        BucketSet(set.into())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_be_bytes().into_iter().skip(1)).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (sums, rest) = bytes.as_chunks::<3>();
        if !rest.is_empty() || !is_count(sums.len()) {
            return Err(DecodeError::Rule(
                "there are 8 to 4,096 buckets of 3 bytes, a power of two",
            ));
        }
        Ok(Self(
            sums.iter()
                .map(|&[high, middle, low]| u32::from_be_bytes([0, high, middle, low]))
                .collect(),
        ))
    }
}

impl BucketSet {
    /// No bucket at all.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new([0]))
    }

    /// Whether it holds no bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the bucket of this origin is in the set.
    #[must_use]
    pub fn contains(&self, origin: NodeAddr) -> bool {
        let number = number(origin, self.0.len().trailing_zeros() + 3);
        self.0[number / 8] & (0x80 >> (number % 8)) != 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        if !is_count(bytes.len() * 8) {
            return Err(DecodeError::Rule("a set of buckets has 8 to 4,096 bits, a power of two"));
        }
        Ok(Self(bytes.into()))
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} buckets", self.0.len())
    }
}

impl fmt::Debug for BucketSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        write!(f, "{set} of {} buckets", self.0.len() * 8)
    }
}

/// The leading bits of an address.
fn number(addr: NodeAddr, bits: u32) -> usize {
    let [high, low, ..] = addr.0;
    usize::from(u16::from_be_bytes([high, low]) >> (16 - bits))
}

fn is_count(buckets: usize) -> bool {
    buckets.is_power_of_two()
        && (Buckets::MIN_BITS..=Buckets::MAX_BITS).contains(&buckets.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::record;

    #[test]
    fn a_bucket_holds_eight_to_sixteen_records() {
        let bits = [0, 128, 256, 257, 512, 10_000, 20_000, 65_536, u64::MAX].map(bits_for);
        assert_eq!(bits, [3, 3, 4, 5, 5, 10, 11, 12, 12]);
    }

    #[test]
    fn only_the_buckets_of_what_differs_differ() {
        let records: Vec<Record> = (0..1_000).map(|n| record(&format!("n{n}"), &[])).collect();
        let all = Buckets::of(&records, 6);
        assert!(all.differing(&all).is_empty());
        let differing = all.differing(&Buckets::of(&records[2..], 6));
        let held = records.iter().filter(|record| differing.contains(record.addr())).count();
        assert!(records[..2].iter().all(|record| differing.contains(record.addr())));
        assert!((2..80).contains(&held), "{held} in {differing:?}");
        let backwards = Buckets::of(records.iter().rev(), 6);
        assert_eq!(backwards, all, "in any order");
    }

    #[test]
    fn buckets_split_otherwise_differ_everywhere() {
        let records = [record("a", &[])];
        let differing = Buckets::of(&records, 3).differing(&Buckets::of(&records, 4));
        assert_eq!(differing.bytes(), [0xff]);
    }

    #[test]
    fn bytes_that_are_no_power_of_two_are_refused() {
        for bits in Buckets::MIN_BITS..=Buckets::MAX_BITS {
            let buckets = Buckets::of(&[record("a", &[])], bits);
            assert_eq!(Buckets::from_bytes(&buckets.to_bytes()), Ok(buckets));
            let set = vec![1; 1 << (bits - 3)];
            assert_eq!(BucketSet::from_bytes(&set).unwrap().bytes(), set);
        }
        for len in [0, 1, 3, 12, 23, 25, 27, 36, 24_576] {
            assert!(Buckets::from_bytes(&vec![0; len]).is_err(), "{len}");
        }
        for len in [0, 3, 1_024] {
            assert!(BucketSet::from_bytes(&vec![0; len]).is_err(), "{len}");
        }
    }
}
