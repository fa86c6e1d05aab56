//! Known bots, by user agent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use isbot::Bots;

/// Clients through which shops call us from their backends: programs, but not bots on a page.
const LIBRARIES: [&str; 21] = [
    "^curl",
    "^java/",
    "^javascript",
    "^lua-resty-http",
    "^php",
    "^php-curl-class",
    "^postmanruntime",
    "aiohttp",
    "axios",
    "go-http-client",
    "guzzlehttp",
    "http_get",
    "httpclient",
    "httpurlconnection",
    "httpx",
    "libwww-perl",
    "node-fetch/",
    "okhttp",
    "pycurl",
    "python-requests",
    "python-urllib",
];

static BOTS: LazyLock<Bots> = LazyLock::new(|| {
    let mut bots = Bots::default();
    bots.remove(&LIBRARIES);
    bots
});

/// User agents that are remembered in each thread: a regular expression of 300 words costs more than an answer.
const REMEMBERED: usize = 2_000;

thread_local! {
    static KNOWN: RefCell<HashMap<String, bool>> = RefCell::default();
}

/// Whether a user agent is a known bot's. No user agent is no bot: backends often send none. What is no UTF-8 is none
/// either.
#[must_use]
pub fn is_bot(user_agent: Option<&[u8]>) -> bool {
    let agent = user_agent.and_then(|agent| std::str::from_utf8(agent).ok());
    let Some(agent) = agent.filter(|agent| !agent.is_empty()) else {
        return false;
    };
    KNOWN.with_borrow_mut(|known| {
        if let Some(verdict) = known.get(agent) {
            return *verdict;
        }
        let verdict = BOTS.is_bot(agent);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        if agent.len() <= 512 {
            known.insert(agent.to_owned(), verdict);
        }
        verdict
    })
}

#[cfg(test)]
mod tests {
    use super::is_bot;

    #[test]
    fn tells_bots_from_browsers_and_backends() {
        let is_bot = |agent: Option<&str>| is_bot(agent.map(str::as_bytes));
        assert!(is_bot(Some(
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
        )));
        assert!(is_bot(Some("Mozilla/5.0 (compatible; bingbot/2.0)")));
        let browser = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36";
        for person in [
            None,
            Some(""),
            Some(browser),
            Some("curl/8.5.0"),
            Some("python-requests/2.32"),
            Some("okhttp/4.12"),
            Some("axios/1.7"),
        ] {
            assert!(!is_bot(person), "{person:?}");
        }
    }
}
