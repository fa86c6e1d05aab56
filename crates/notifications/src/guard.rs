//! Which addresses we send to: public ones, over https. Whoever may name a target must not reach our own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an address.
    #[error("is not an absolute URL")]
    NotAUrl,
    /// Only https is allowed.
    #[error("must begin with https://")]
    NotHttps,
    /// User or password in the address.
    #[error("must not hold a user name or password")]
    UserInfo,
    /// An address inside of some network.
    #[error("must not lead to a private, loopback or link-local address")]
    NotPublic,
}

/// Reads the address of a target. `allow_private` also lets http and private addresses pass, for tests.
///
/// # Errors
/// [`Refused`].
pub fn target(text: &str, allow_private: bool) -> Result<Url, Refused> {
    let url = Url::parse(text).map_err(|_| Refused::NotAUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(Refused::NotHttps),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::UserInfo);
    }
    // The parser has turned every spelling of an address, such as 0x7f.1, into the address.
    let literal = match url.host().ok_or(Refused::NotAUrl)? {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
    };
    if literal.is_some_and(|ip| !allow_private && !is_public(ip)) {
        return Err(Refused::NotPublic);
    }
    Ok(url)
}

/// Of the addresses of a name those that may be connected to. The connection is made to these and to no later answer of
/// the name's server.
///
/// # Errors
/// [`Refused::NotPublic`] when none may.
pub fn allowed(
    addresses: impl Iterator<Item = SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, Refused> {
    let allowed: Vec<SocketAddr> = addresses
        .filter(|address| allow_private || is_public(address.ip()))
        .collect();
    if allowed.is_empty() {
        return Err(Refused::NotPublic);
    }
    Ok(allowed)
}

/// Whether an address belongs to the public internet.
///
/// # Source
/// IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates).
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = matches!(
        ip.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inside) = ip.to_ipv4_mapped() {
        return is_public_v4(inside);
    }
    let [a, b, ..] = ip.segments();
    if (a, b) == (0x64, 0xff9b) {
        // Translated to IPv4 on the way (RFC 6052): the last four bytes say where to.
        let [.., c, d] = ip.segments();
        let [c, d] = [c.to_be_bytes(), d.to_be_bytes()];
        let plain = ip
            .segments()
            .get(2..6)
            .is_some_and(|zeros| zeros.iter().all(|s| *s == 0));
        return plain && is_public_v4(Ipv4Addr::new(c[0], c[1], d[0], d[1]));
    }
    let global_unicast = (0x2000..=0x3fff).contains(&a);
    let special = match a {
        // Protocol assignments (Teredo among them), documentation.
        0x2001 => b < 0x200 || b == 0xdb8,
        // 6to4 carries any IPv4 address.
        0x2002 => true,
        0x3fff => b < 0x1000,
        _ => false,
    };
    global_unicast && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_is_what_no_registry_keeps_back() {
        for public in [
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_seen_through() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://１２７.0.0.1/",
        ] {
            assert_eq!(target(url, false), Err(Refused::NotPublic), "{url}");
            target(url, true).unwrap();
        }
    }

    #[test]
    fn only_https_without_credentials_passes() {
        target("https://hooks.example.com/x?y=z", false).unwrap();
        for (url, why) in [
            ("http://hooks.example.com/", Refused::NotHttps),
            ("ftp://hooks.example.com/", Refused::NotHttps),
            ("file:///etc/passwd", Refused::NotHttps),
            ("https://user:pw@hooks.example.com/", Refused::UserInfo),
            ("hooks.example.com", Refused::NotAUrl),
            ("https://", Refused::NotAUrl),
            ("", Refused::NotAUrl),
        ] {
            assert_eq!(target(url, false), Err(why), "{url}");
        }
        assert_eq!(target("ftp://x/", true), Err(Refused::NotHttps));
    }

    #[test]
    fn of_a_name_only_its_public_addresses_count() {
        let both = ["127.0.0.1:0", "1.1.1.1:0"].map(|a| a.parse().unwrap());
        assert_eq!(
            allowed(both.into_iter(), false),
            Ok(vec!["1.1.1.1:0".parse().unwrap()])
        );
        assert_eq!(allowed(both.into_iter(), true).unwrap().len(), 2);
        assert_eq!(
            allowed(both.into_iter().take(1), false),
            Err(Refused::NotPublic)
        );
    }
}
