//! Parses both spellings of a connection string into keys and values.
//!
//! It handles the grammar only, not the meaning of keys: a URL and its `key=value` form result in
//! the same list. Errors never repeat the text, which holds a password.
//!
//! Grammar: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>

use super::ConnInfoError;

/// Keys and values in the order written; the last of a repeated key counts.
pub(super) type Pairs = Vec<(String, String)>;

/// Parses either spelling.
pub(super) fn pairs(text: &str) -> Result<Pairs, ConnInfoError> {
    if text.contains('\0') {
        return Err(syntax("it holds a NUL character"));
    }
    for scheme in ["postgres://", "postgresql://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return url(rest);
        }
    }
    // A single word is a database name to psql, but here it is far more often a mistyped URL.
    if let Some((scheme, _)) = text.split_once("://")
        && !scheme.contains('=')
    {
        return Err(syntax("its scheme is neither postgres:// nor postgresql://"));
    }
    key_values(text)
}

fn syntax(problem: &'static str) -> ConnInfoError {
    ConnInfoError::Syntax { problem }
}

fn url(rest: &str) -> Result<Pairs, ConnInfoError> {
    let mut pairs = Pairs::new();
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match before_query.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (before_query, None),
    };
    // An unescaped '@' in a password is common; the last one ends the credentials.
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            push(&mut pairs, "user", user)?;
            push(&mut pairs, "password", password.unwrap_or_default())?;
            hosts
        }
        None => authority,
    };
    url_hosts(&mut pairs, hosts)?;
    push(&mut pairs, "dbname", database.unwrap_or_default())?;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| syntax("a parameter after the question mark has no equals sign"))?;
        let key = percent_decode(key)?;
        let value = percent_decode(value)?;
        // JDBC's spelling, which libpq accepts too.
        if key == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            pairs.push((key, value));
        }
    }
    Ok(pairs)
}

fn push(pairs: &mut Pairs, key: &str, encoded: &str) -> Result<(), ConnInfoError> {
    if !encoded.is_empty() {
        pairs.push((key.to_owned(), percent_decode(encoded)?));
    }
    Ok(())
}

fn url_hosts(pairs: &mut Pairs, hosts: &str) -> Result<(), ConnInfoError> {
    if hosts.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(literal) => {
                let (address, after) = literal
                    .split_once(']')
                    .ok_or_else(|| syntax("an IPv6 address has no closing bracket"))?;
                let port = match after.strip_prefix(':') {
                    Some(port) => port,
                    None if after.is_empty() => "",
                    None => return Err(syntax("after an IPv6 address only a port may follow")),
                };
                (address, port)
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(percent_decode(name)?);
        ports.push(percent_decode(port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        pairs.push(("host".to_owned(), names.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    Ok(())
}

fn percent_decode(text: &str) -> Result<String, ConnInfoError> {
    let wrong = || syntax("a percent sign is not followed by two hexadecimal digits");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let high = digit().ok_or_else(wrong)?;
        let low = digit().ok_or_else(wrong)?;
        let value = high << 4 | low;
        if value == 0 {
            return Err(syntax("it holds a NUL character"));
        }
        decoded.push(value);
    }
    String::from_utf8(decoded).map_err(|_| syntax("its percent-encoded bytes are not UTF-8"))
}

fn key_values(text: &str) -> Result<Pairs, ConnInfoError> {
    let mut pairs = Pairs::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|&c| c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') || key.is_empty() {
            return Err(syntax("it is neither a postgres:// URL nor a list of key=value pairs"));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let value = match chars.next_if_eq(&'\'') {
            Some(_) => quoted(&mut chars)?,
            None => bare(&mut chars)?,
        };
        pairs.push((key, value));
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn quoted(chars: &mut Chars<'_>) -> Result<String, ConnInfoError> {
    let unterminated = || syntax("a quoted value has no closing quote");
    let mut value = String::new();
    loop {
        match chars.next().ok_or_else(unterminated)? {
            '\'' => return Ok(value),
            '\\' => value.push(chars.next().ok_or_else(unterminated)?),
            c => value.push(c),
        }
    }
}

fn bare(chars: &mut Chars<'_>) -> Result<String, ConnInfoError> {
    let mut value = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
        if c == '\\' {
            value.push(chars.next().ok_or_else(|| syntax("it ends in a backslash"))?);
        } else {
            value.push(c);
        }
    }
    Ok(value)
}
