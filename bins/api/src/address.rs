//! Who is at the other end: the socket's peer, or what proxies that we trust say of theirs.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName, HeaderValue};

/// Longer lists of hops come from nobody but an attacker.
const MAX_HOPS: usize = 32;

/// A range of addresses, such as `10.0.0.0/8`; a single address is the range of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = plain(address);
        address.is_ipv4() == self.first.is_ipv4()
            && masked(address, self.bits) == masked(self.first, self.bits)
    }
}

impl std::str::FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| ())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        match bits.unwrap_or(most) {
            bits if bits <= most => Ok(Self { first, bits }),
            _ => Err(()),
        }
    }
}

/// The header that the proxies write. Only one is believed: they pass the other on as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Which proxies are believed, and what they write.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// What they write.
    pub header: ForwardedBy,
}

impl Proxies {
    /// The address of the client: the last hop, from our side, that is no proxy of ours.
    #[must_use]
    pub fn client(&self, req: &HttpRequest) -> Option<IpAddr> {
        let peer = plain(req.peer_addr()?.ip());
        if self.networks.is_empty() || !self.trusts(peer) {
            return Some(peer);
        }
        let name = match self.header {
            ForwardedBy::XForwardedFor => X_FORWARDED_FOR,
            ForwardedBy::Forwarded => FORWARDED,
        };
        let lines: Vec<&str> = req
            .headers()
            .get_all(name)
            .map(|line: &HeaderValue| line.to_str().unwrap_or_default())
            .collect();
        Some(self.last_stranger(peer, &lines))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(address))
    }

    /// Goes back from `peer`, one hop at a time, for as long as the hop that wrote the entry is trusted. What cannot be
    /// read ends the way: whatever stands before it is hearsay.
    fn last_stranger(&self, peer: IpAddr, lines: &[&str]) -> IpAddr {
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        let mut last = peer;
        for hop in hops.take(MAX_HOPS) {
            let Some(address) = self.address_of(hop) else {
                return last;
            };
            last = address;
            if !self.trusts(address) {
                break;
            }
        }
        last
    }

    fn address_of(&self, hop: &str) -> Option<IpAddr> {
        let text = match self.header {
            ForwardedBy::XForwardedFor => hop,
            ForwardedBy::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then_some(value)
            })?,
        };
        host(text.trim().trim_matches('"'))
    }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn host(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, _port) = rest.split_once(']')?;
        return address.parse::<Ipv6Addr>().ok().map(IpAddr::V6).map(plain);
    }
    text.parse()
        .or_else(|_| text.rsplit_once(':').map_or(text, |(host, _)| host).parse())
        .ok()
        .map(plain)
}

/// An IPv4 address that came in the clothes of IPv6 is an IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn masked(address: IpAddr, bits: u8) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) >> (32 - u32::from(bits.min(32))),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_shr(128 - u32::from(bits.min(128)))
            .unwrap_or(0),
    }
}

/// What a limit counts: an IPv4 address, or the /64 that an IPv6 client chooses its addresses from.
#[must_use]
pub fn household(address: IpAddr) -> u64 {
    match plain(address) {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // 2000::/3 and the rest never meet the numbers of IPv4 addresses, which fit in 32 bits.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ForwardedBy) -> Proxies {
        let networks = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];
        Proxies {
            networks: networks.map(|net| net.parse().unwrap()).to_vec(),
            header,
        }
    }

    fn seen(header: ForwardedBy, lines: &[&str]) -> String {
        let peer = "10.0.0.1".parse().unwrap();
        proxies(header).last_stranger(peer, lines).to_string()
    }

    #[test]
    fn networks_are_read_and_contain_what_they_say() {
        let contains = |net: &str, address: &str| {
            let net: Network = net.parse().unwrap();
            net.contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "198.51.100.1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "198.51.100.1"));
        assert!(contains("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "::/129",
            "host",
            "10.0.0.0/8/8",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_of_ours_is_the_client() {
        let by = ForwardedBy::XForwardedFor;
        assert_eq!(seen(by, &[]), "10.0.0.1");
        assert_eq!(seen(by, &["198.51.100.9"]), "198.51.100.9");
        // What the client wrote itself stands further left.
        assert_eq!(seen(by, &["203.0.113.1, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(
            seen(by, &["203.0.113.1", "198.51.100.9, 192.0.2.7"]),
            "198.51.100.9"
        );
        assert_eq!(seen(by, &["198.51.100.9:4711, 10.2.3.4"]), "198.51.100.9");
        assert_eq!(seen(by, &["[2001:db9::1]:80"]), "2001:db9::1");
        // Hearsay behind what cannot be read.
        assert_eq!(seen(by, &["203.0.113.1, unknown, 10.2.3.4"]), "10.2.3.4");
        assert_eq!(seen(by, &["203.0.113.1,"]), "10.0.0.1");
        // Everybody is ours.
        assert_eq!(seen(by, &["10.9.9.9, 10.2.3.4"]), "10.9.9.9");
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_configured() {
        let by = ForwardedBy::Forwarded;
        assert_eq!(
            seen(by, &["for=198.51.100.9;proto=https;by=10.0.0.1"]),
            "198.51.100.9"
        );
        assert_eq!(seen(by, &["For=\"[2001:db9::17]:4711\""]), "2001:db9::17");
        assert_eq!(
            seen(by, &["for=203.0.113.1, proto=https;for=198.51.100.9"]),
            "198.51.100.9"
        );
        assert_eq!(seen(by, &["for=_hidden"]), "10.0.0.1");
        assert_eq!(seen(by, &["198.51.100.9"]), "10.0.0.1");
    }

    #[test]
    fn a_household_of_ipv6_counts_as_one() {
        let of = |text: &str| household(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
