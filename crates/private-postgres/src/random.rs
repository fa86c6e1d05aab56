//! Random bytes of the operating system, and a stable hash.

use std::fs::File;
use std::io::Read;

use crate::error::{Context, Error};

const SOURCE: &str = "/dev/urandom";

/// `N` bytes fit for a secret.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open(SOURCE)
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read", SOURCE)?;
    Ok(bytes)
}

/// `N` random bytes as `2 N` hexadecimal digits.
pub(crate) fn hex<const N: usize>() -> Result<String, Error> {
    Ok(bytes::<N>()?.iter().map(|b| format!("{b:02x}")).collect())
}

/// 64-bit FNV-1a. The hasher of the standard library may change between releases, and these
/// hashes name folders on disk.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_gives_the_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn hex_has_two_digits_a_byte_and_differs_each_time() {
        let first = hex::<16>().unwrap();
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(first, hex::<16>().unwrap());
    }
}
