//! Reports warnings of servers at a successful login: a password that expires soon, or MD5 that is
//! deprecated.
//!
//! The login works today and will fail later, so an operator has to see it: each text is logged
//! once as a warning, however often we log in, and remains in `/status`. Notices of a lower
//! severity need no action.
//!
//! A server may be hostile: few texts are kept, each is cut, and none can contain a line break.

use std::sync::{Mutex, PoisonError};

use super::server_error::ServerError;

/// Most texts that are kept.
const MAX_TEXTS: usize = 8;

/// Longest text.
const MAX_CHARS: usize = 300;

static TEXTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The warnings of all logins so far, the oldest first.
#[must_use]
pub fn login_notices() -> Vec<String> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Records a notice that was sent with a login.
pub(super) fn note(body: &[u8]) {
    let notice = ServerError::parse(body);
    let text = shown(&notice.message);
    if notice.severity != "WARNING" || !keep(&mut lock(), &text) {
        tracing::debug!(severity = notice.severity, sqlstate = notice.sqlstate, text);
        return;
    }
    let hint = notice.hint.as_deref().map(shown);
    tracing::warn!(sqlstate = notice.sqlstate, hint, "the server warns of this login: {text}");
}

fn lock() -> std::sync::MutexGuard<'static, Vec<String>> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the text is new and was stored.
fn keep(texts: &mut Vec<String>, text: &str) -> bool {
    if texts.len() >= MAX_TEXTS || texts.iter().any(|known| known == text) {
        return false;
    }
    texts.push(text.to_owned());
    true
}

/// The text on one line, cut.
fn shown(text: &str) -> String {
    text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_counts_once_and_few_are_kept() {
        let mut texts = Vec::new();
        assert!(keep(&mut texts, "a") && !keep(&mut texts, "a") && keep(&mut texts, "b"));
        for n in 0..100 {
            keep(&mut texts, &n.to_string());
        }
        assert_eq!(texts.len(), MAX_TEXTS);
        assert_eq!(shown("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shown(&"x".repeat(9_999)).len(), MAX_CHARS);
    }
}
