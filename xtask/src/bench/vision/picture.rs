//! Pictures to ask about, in two lossless formats, and a server that hands one out.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};

/// Pixels, red, green and blue.
#[derive(Clone, PartialEq)]
pub struct Picture {
    side: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A square of waves and grain; another one for each number.
    pub fn new(side: usize, number: u32) -> Self {
        let phase = number as f32;
        let mut grain = 0x9e37_79b9_u32 ^ number;
        let mut pixels = Vec::with_capacity(3 * side * side);
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y as f32, x as f32))) {
            for (wave, shift) in [(0.021, 0.0), (0.034, 1.7), (0.013, 3.1)] {
                // Numerical Recipes' generator: grain need not be good.
                grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = (x * wave + phase).sin() * (y * wave + shift).cos() * 100.0 + 118.0;
                pixels.push(value as u8 + (grain >> 28) as u8);
            }
        }
        Self { side, pixels }
    }

    /// A PNG file, stored without compression.
    pub fn png(&self) -> Vec<u8> {
        let side = self.side as u32;
        let mut raw = Vec::with_capacity(self.pixels.len() + self.side);
        for row in self.pixels.chunks(3 * self.side) {
            raw.push(0);
            raw.extend_from_slice(row);
        }
        let mut stream = vec![0x78, 0x01];
        let blocks = raw.chunks(0xffff);
        let last = blocks.len() - 1;
        for (i, block) in blocks.enumerate() {
            let len = block.len() as u16;
            stream.push(u8::from(i == last));
            stream.extend([len.to_le_bytes(), (!len).to_le_bytes()].concat());
            stream.extend_from_slice(block);
        }
        stream.extend(adler32(&raw).to_be_bytes());
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        for (kind, data) in [(b"IHDR", &header), (b"IDAT", &stream), (b"IEND", &vec![])] {
            let named = [&kind[..], data].concat();
            file.extend((data.len() as u32).to_be_bytes());
            file.extend_from_slice(&named);
            file.extend(crc32fast::hash(&named).to_be_bytes());
        }
        file
    }

    /// A BMP file: rows from the bottom, blue first.
    pub fn bmp(&self) -> Vec<u8> {
        let stride = (3 * self.side).next_multiple_of(4);
        let (side, size) = (self.side as u32, (stride * self.side) as u32);
        let mut file = b"BM".to_vec();
        for number in [54 + size, 0, 54, 40, side, side, 1 | 24 << 16, 0, size, 2835, 2835, 0, 0] {
            file.extend(number.to_le_bytes());
        }
        for row in self.pixels.chunks(3 * self.side).rev() {
            file.extend(row.chunks(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]));
            file.resize(file.len() + stride - row.len(), 0);
        }
        file
    }
}

/// A file as a URL that contains it.
pub fn data_uri(kind: &str, file: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(file))
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // So many sums don't overflow.
    for chunk in bytes.chunks(5552) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        (a, b) = (a % 65_521, b % 65_521);
    }
    b << 16 | a
}

/// Hands out `file` to whoever asks for anything, as long as the process lives. Returns its URL.
pub fn serve(file: Vec<u8>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://127.0.0.1:{}/picture.png", listener.local_addr()?.port());
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            // A client that goes away is no concern of the measurement's.
            drop(answer(&mut socket, &file));
        }
    });
    Ok(url)
}

fn answer(socket: &mut TcpStream, file: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let mut len = 0;
    while len < request.len() && !request[..len].ends_with(b"\r\n\r\n") {
        len += match socket.read(&mut request[len..])? {
            0 => return Ok(()),
            read => read,
        };
    }
    let length = file.len();
    write!(
        socket,
        "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    socket.write_all(file)
}
