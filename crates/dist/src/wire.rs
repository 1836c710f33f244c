//! Frames: a length of 4 bytes, little-endian, and as many bytes.

use std::io::{Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// No message is longer: a plan of a hundred sequences of a million tokens is shorter.
pub const LONGEST: usize = 64 << 20;

/// Sends a message as one frame.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), String> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(message, frame).map_err(|error| error.to_string())?;
    let len = u32::try_from(frame.len() - 4).map_err(|error| error.to_string())?;
    frame[..4].copy_from_slice(&len.to_le_bytes());
    to.write_all(&frame).map_err(|error| io(&error))
}

/// The next message, of at most `longest` bytes.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, longest: usize) -> Result<T, String> {
    let mut len = [0; 4];
    from.read_exact(&mut len).map_err(|error| io(&error))?;
    let len = u32::from_le_bytes(len) as usize;
    if len > longest {
        return Err(format!("it sends {len} bytes where at most {longest} were expected: is it vllm-mlx?"));
    }
    let mut frame = vec![0; len];
    from.read_exact(&mut frame).map_err(|error| io(&error))?;
    postcard::from_bytes(&frame).map_err(|error| format!("it sends what makes no sense: {error}"))
}

/// What an operator should read of an error.
pub fn io(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
            "the connection was closed".into()
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing was heard of it in time".into(),
        ErrorKind::ConnectionRefused => "nobody listens there".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut pipe = Vec::new();
        write(&mut pipe, &(7u64, "seven")).unwrap();
        write(&mut pipe, &(8u64, "eight")).unwrap();
        let mut from = &pipe[..];
        assert_eq!(read::<(u64, String)>(&mut from, 100).unwrap(), (7, "seven".into()));
        assert_eq!(read::<(u64, String)>(&mut from, 100).unwrap(), (8, "eight".into()));
        assert_eq!(read::<(u64, String)>(&mut from, 100).unwrap_err(), "the connection was closed");
    }

    #[test]
    fn what_is_no_frame_of_ours_is_refused() {
        for (name, bytes, wanted) in [
            ("HTTP", &b"GET / HTTP/1.1\r\n\r\n"[..], "it sends 542393671 bytes where at most 1000"),
            ("cut off", &[9, 0, 0, 0, 1, 2], "the connection was closed"),
            ("no string", &[2, 0, 0, 0, 1, 5], "it sends what makes no sense"),
        ] {
            let mut from = bytes;
            let error = read::<(u64, String)>(&mut from, 1000).unwrap_err();
            assert!(error.starts_with(wanted), "{name}: {error}");
        }
    }
}
