//! The first words on a connection: who speaks which protocol, and whether both know the same token.
//!
//! Each end sends numbers that were never used before, and answers the other's with a keyed hash of both (HMAC-SHA256, RFC 2104):
//! the token itself never travels, and an answer is of no use a second time.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::{Shutdown, TcpStream},
    path::Path,
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{Error, Result, SILENCE, wire};

/// Changes whenever ranks of two versions would misunderstand each other.
const PROTOCOL: u32 = 1;
/// No greeting is longer.
const LONGEST: usize = 1000;
/// How long the other end may take to say each of its words.
const PATIENCE: Duration = Duration::from_secs(5);

/// A secret that all ranks know.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The first line of a file.
    ///
    /// # Errors
    /// If it can't be read, or its first line is empty.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(Self(line.into())),
            _ => Err(format!("{}: its first line should be the token, and is empty", path.display())),
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Plans and news, between rank 0 and another.
    Line,
    /// Hidden states for the rank that connects.
    Hidden { session: u64 },
}

type Nonce = [u8; 32];

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    name: String,
    protocol: u32,
    version: String,
    nonce: Nonce,
    purpose: Purpose,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Welcome { nonce: Nonce, proof: Nonce },
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Welcome,
    Refused(String),
    /// Not now.
    Later(String),
}

const NAME: &str = "vllm-mlx pipeline";
const WRONG_TOKEN: &str = "the tokens differ: give both the same file with --dist-token-file";

/// Greets as the one who connected.
///
/// # Errors
/// [`Error::Gone`] if the other end breaks off, [`Error::Refused`] if the two don't go together.
pub fn greet(stream: &mut TcpStream, purpose: Purpose, token: Option<&Token>) -> Result<()> {
    prepare(stream)?;
    let nonce = fresh();
    let version = env!("CARGO_PKG_VERSION").into();
    wire::write(stream, &Hello { name: NAME.into(), protocol: PROTOCOL, version, nonce, purpose })
        .map_err(Error::Gone)?;
    let (theirs, proof) = match wire::read(stream, LONGEST).map_err(Error::Gone)? {
        Reply::Welcome { nonce, proof } => (nonce, proof),
        Reply::Refused(why) => return Err(Error::Refused(why)),
    };
    // Whoever listens has to prove it first: an impostor gets nothing to try elsewhere.
    let honest = is_proof(token, "listens", &nonce, &theirs, &proof);
    let mine = if honest { prove(token, "connects", &nonce, &theirs) } else { Nonce::default() };
    wire::write(stream, &mine).map_err(Error::Gone)?;
    if !honest {
        return Err(Error::Refused(WRONG_TOKEN.into()));
    }
    match wire::read(stream, LONGEST).map_err(Error::Gone)? {
        Verdict::Welcome => settle(stream),
        Verdict::Refused(why) => Err(Error::Refused(why)),
        Verdict::Later(why) => Err(Error::Gone(why)),
    }
}

/// Greets as the one who listened; `may` says whether there is room for what the other wants.
///
/// # Errors
/// As [`greet`].
pub fn welcome(
    stream: &mut TcpStream,
    token: Option<&Token>,
    may: impl FnOnce(Purpose) -> Result<()>,
) -> Result<Purpose> {
    prepare(stream)?;
    let hello: Hello = wire::read(stream, LONGEST).map_err(Error::Gone)?;
    if hello.name != NAME || hello.protocol != PROTOCOL {
        let why = format!(
            "versions differ: here is vllm-mlx {}, protocol {PROTOCOL}, there {}, protocol {}",
            env!("CARGO_PKG_VERSION"),
            hello.version,
            hello.protocol
        );
        let _ = wire::write(stream, &Reply::Refused(why.clone()));
        return Err(Error::Refused(why));
    }
    let nonce = fresh();
    let proof = prove(token, "listens", &hello.nonce, &nonce);
    wire::write(stream, &Reply::Welcome { nonce, proof }).map_err(Error::Gone)?;
    let theirs: Nonce = wire::read(stream, LONGEST).map_err(Error::Gone)?;
    let verdict = if is_proof(token, "connects", &hello.nonce, &nonce, &theirs) {
        may(hello.purpose)
    } else {
        Err(Error::Refused(WRONG_TOKEN.into()))
    };
    match verdict {
        Ok(()) => {
            wire::write(stream, &Verdict::Welcome).map_err(Error::Gone)?;
            settle(stream)?;
            Ok(hello.purpose)
        }
        Err(error) => {
            let verdict = match &error {
                Error::Gone(why) => Verdict::Later(why.clone()),
                other => Verdict::Refused(other.to_string()),
            };
            let _ = wire::write(stream, &verdict);
            let _ = stream.shutdown(Shutdown::Write);
            Err(error)
        }
    }
}

fn prepare(stream: &TcpStream) -> Result<()> {
    let set = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(SILENCE))
    };
    set().map_err(|error| Error::Gone(wire::io(&error)))
}

/// From here on waiting is as the connection's purpose has it.
fn settle(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(None).map_err(|error| Error::Gone(wire::io(&error)))
}

fn keyed(token: Option<&Token>, role: &str, connects: &Nonce, listens: &Nonce) -> Hmac<Sha256> {
    let key: &[u8] = token.map_or(b"", |token| &token.0);
    // Keys may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(&[token.is_some().into()]);
    mac.update(role.as_bytes());
    mac.update(connects);
    mac.update(listens);
    mac
}

fn prove(token: Option<&Token>, role: &str, connects: &Nonce, listens: &Nonce) -> Nonce {
    keyed(token, role, connects, listens).finalize().into_bytes().into()
}

/// In a time that doesn't depend on how much of it is right.
fn is_proof(token: Option<&Token>, role: &str, connects: &Nonce, listens: &Nonce, proof: &Nonce) -> bool {
    keyed(token, role, connects, listens).verify_slice(proof).is_ok()
}

/// From the operating system's randomness, by way of the hash maps' keys, which are drawn anew for each thread and then counted on:
/// hashed, so that they repeat nowhere.
fn fresh() -> Nonce {
    let words = std::thread::spawn(|| {
        [0u64, 1, 2, 3].map(|word| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(word);
            hasher.finish().to_le_bytes()
        })
    });
    let mut nonce = Nonce::default();
    for (to, word) in nonce.chunks_exact_mut(8).zip(words.join().unwrap_or_default()) {
        to.copy_from_slice(&word);
    }
    nonce
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use super::*;

    /// Both ends' outcomes.
    fn meet(connects: Option<&str>, listens: Option<&str>) -> (Result<()>, Result<Purpose>) {
        let [connects, listens] = [connects, listens].map(|token| token.map(|token| Token(token.into())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let there = thread::spawn(move || welcome(&mut listener.accept().unwrap().0, listens.as_ref(), |_| Ok(())));
        let here = greet(&mut TcpStream::connect(address).unwrap(), Purpose::Line, connects.as_ref());
        (here, there.join().unwrap())
    }

    #[test]
    fn only_the_same_token_opens() {
        for (connects, listens, opens) in [
            (None, None, true),
            (Some("a"), Some("a"), true),
            (Some("a"), Some("b"), false),
            (Some("a"), None, false),
            (None, Some("a"), false),
        ] {
            let (here, there) = meet(connects, listens);
            assert_eq!((here.is_ok(), there.is_ok()), (opens, opens), "{connects:?} {listens:?}");
            if let Err(error) = here {
                assert!(error.to_string().contains("tokens differ"), "{error}");
            }
        }
    }

    #[test]
    fn nonces_are_never_the_same() {
        let all: std::collections::HashSet<_> = (0..100).map(|_| fresh()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn another_protocol_and_no_protocol_are_told_apart() {
        let other =
            Hello { name: NAME.into(), protocol: 99, version: "9.9".into(), nonce: fresh(), purpose: Purpose::Line };
        let mut frame = Vec::new();
        wire::write(&mut frame, &other).unwrap();
        for (name, bytes, wanted) in [
            ("another version", &frame[..], "there 9.9, protocol 99"),
            ("a browser", b"GET / HTTP/1.1\r\n\r\n", "is it vllm-mlx?"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.write_all(bytes).unwrap();
            let error = welcome(&mut listener.accept().unwrap().0, None, |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
}
