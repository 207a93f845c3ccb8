//! Which values are secret, and how a connection string is shown without its password.
//!
//! If a string can't be parsed for certain, all of it is masked: showing too little is an
//! inconvenience, showing too much is a leak.

use super::secret::MASK;

/// Whether the value of this librdkafka property is a secret.
pub(super) fn is_secret_property(name: &str) -> bool {
    // `sasl.oauthbearer.config` and JAAS texts hold passwords among other things.
    const MARKS: [&str; 7] =
        ["password", "passphrase", "secret", "credential", "key.pem", "jaas", "oauthbearer.config"];
    let name = name.to_ascii_lowercase();
    MARKS.iter().any(|mark| name.contains(mark))
}

/// A libpq connection string with its passwords masked.
pub(super) fn connection_string(text: &str) -> String {
    let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
    match text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        Some((scheme, rest)) => format!("{scheme}://{}", url(rest)),
        None => pairs(text).unwrap_or_else(|| MASK.to_owned()),
    }
}

fn url(rest: &str) -> String {
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    // The last `@`: a password may contain an unescaped one, and an unescaped `/`.
    let shown = match rest.rsplit_once('@') {
        Some((userinfo, rest)) => match userinfo.split_once(':') {
            Some((user, _password)) => format!("{user}:{MASK}@{rest}"),
            None => format!("{userinfo}@{rest}"),
        },
        None => rest.to_owned(),
    };
    let Some(query) = query else { return shown };
    // An unescaped `?` in a password: then the `@` comes after it.
    if query.contains('@') {
        return MASK.to_owned();
    }
    let parameters: Vec<String> = query.split('&').map(parameter).collect();
    format!("{shown}?{}", parameters.join("&"))
}

fn parameter(text: &str) -> String {
    let Some((name, value)) = text.split_once('=') else { return MASK.to_owned() };
    format!("{}={}", shown_name(name), shown_value(name, value))
}

/// The parameters whose values are not secret. Any other may be a password under a mistyped name.
const OPEN: [&str; 27] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "sslcrl",
    "ssl",
    "channel_binding",
    "gssencmode",
    "connect_timeout",
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "load_balance_hosts",
];

fn shown_value<'a>(name: &str, value: &'a str) -> &'a str {
    // libpq takes a whole connection string as `dbname`, with the password in it.
    if OPEN.contains(&name) && !value.contains("://") && !value.contains('@') {
        value
    } else {
        MASK
    }
}

/// An unknown name may be a piece of a password.
fn shown_name(name: &str) -> &str {
    let is_name =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_%0123456789".contains(&byte));
    if is_name { name } else { MASK }
}

/// `key=value` pairs, values quoted with `'` where needed; `None` if it is not such a list.
fn pairs(text: &str) -> Option<String> {
    let mut shown = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let end = value_end(after)?;
        let (name, value) = (name.trim(), &after[..end]);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        shown.push(format!("{}={}", shown_name(name), shown_value(name, value)));
        rest = after[end..].trim_start();
    }
    Some(shown.join(" "))
}

/// The end of the value at the start of `text`; `None` if its quote is never closed.
fn value_end(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(usize::from(quoted)) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(at + 1),
            c if c.is_whitespace() && !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_shown_without_its_passwords() {
        for (given, shown) in [
            ("postgres://u:hunter2@h:5432/db", "postgres://u:********@h:5432/db"),
            ("postgresql://u@h/db", "postgresql://u@h/db"),
            (
                "postgres://u:hunter2@a,b:1/db?sslmode=require",
                "postgres://u:********@a,b:1/db?sslmode=require",
            ),
            ("postgres://u:hun@ter2@h/db", "postgres://u:********@h/db"),
            ("postgres://u:hun/ter2@h/db", "postgres://u:********@h/db"),
            ("postgres://u:hun?ter2@h/db", "postgres://********"),
            ("postgres:///db?user=u&password=hunter2", "postgres:///db?user=u&password=********"),
            ("postgres:///db?%70assword=hunter2", "postgres:///db?%70assword=********"),
            ("host=h password=hunter2 user=u", "host=h password=******** user=u"),
            ("host=h password='hun ter2\\'' user=u", "host=h password=******** user=u"),
            ("host = h password = hunter2", "host=h password=********"),
            ("sslpassword=hunter2", "sslpassword=********"),
            ("password='hunter2", "********"),
            ("hunter2", "********"),
            ("u hunter2=x", "********"),
            ("host=h passwd=hunter2 user=u", "host=h passwd=******** user=u"),
            ("host=h pasword=hunter2", "host=h pasword=********"),
            ("host=h PGPASSWORD=hunter2", "host=h ********=********"),
            ("dbname=postgres://u:hunter2@h/db", "dbname=********"),
            ("postgresql//u:Hunter2@h?x=1", "********=********"),
            ("password=hunter2://x", "password=********"),
            (
                "postgres:///db?pwd=hunter2&sslmode=require",
                "postgres:///db?pwd=********&sslmode=require",
            ),
            ("postgres:///db?hunter2", "postgres:///db?********"),
        ] {
            assert_eq!(connection_string(given), shown, "{given}");
        }
    }

    #[test]
    fn properties_that_hold_secrets_are_known() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "sasl.jaas.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "SASL.PASSWORD",
        ] {
            assert!(is_secret_property(name), "{name}");
        }
        for name in ["sasl.username", "linger.ms", "ssl.ca.location", "ssl.key.location"] {
            assert!(!is_secret_property(name), "{name}");
        }
    }
}
