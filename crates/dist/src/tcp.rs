//! Hidden states over a socket of ours: between two neighbours one message for each step, numbers or why there are none.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use half::{bf16, f16, slice::HalfFloatSliceExt as _};
use vllm_platform::HiddenDtype;

use crate::wire;

/// What a stage made of a step, or why it made nothing.
pub type Made = Result<Vec<f32>, String>;

/// Precedes each message: step, whether numbers follow, bytes.
const HEADER: usize = 8 + 1 + 4;

/// Sends what a stage made of step `number`.
pub fn send(to: &mut TcpStream, number: u64, made: &Made, dtype: HiddenDtype) -> Result<(), String> {
    let mut message = vec![0; HEADER];
    match made {
        Ok(numbers) => encode(numbers, dtype, &mut message),
        Err(why) => message.extend_from_slice(why.as_bytes()),
    }
    let bytes = u32::try_from(message.len() - HEADER).map_err(|_| "a step's hidden states exceed 4 GiB".to_owned())?;
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[8] = made.is_ok().into();
    message[9..HEADER].copy_from_slice(&bytes.to_le_bytes());
    to.write_all(&message).map_err(|error| wire::io(&error))
}

/// What the neighbour made of step `number`, of which `len` numbers are wanted.
pub fn receive(from: &mut TcpStream, number: u64, len: usize, dtype: HiddenDtype) -> Result<Made, String> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header).map_err(|error| wire::io(&error))?;
    let [step, rest @ ..] = header.as_chunks::<8>().0 else { unreachable!("13 bytes have 8") };
    debug_assert!(rest.is_empty());
    let bytes = u32::from_le_bytes([header[9], header[10], header[11], header[12]]) as usize;
    let (step, is_numbers) = (u64::from_le_bytes(*step), header[8] == 1);
    if step != number || is_numbers && bytes != len * size(dtype) || bytes > wire::LONGEST.max(len * 4) {
        return Err(format!("it sent {bytes} bytes of step {step} in place of {len} numbers of step {number}"));
    }
    let mut body = vec![0; bytes];
    from.read_exact(&mut body).map_err(|error| wire::io(&error))?;
    Ok(if is_numbers { Ok(decode(&body, dtype)) } else { Err(String::from_utf8_lossy(&body).into_owned()) })
}

fn size(dtype: HiddenDtype) -> usize {
    match dtype {
        HiddenDtype::F32 => 4,
        HiddenDtype::F16 | HiddenDtype::Bf16 => 2,
    }
}

/// Little-endian, in what they were computed in: nothing is lost.
fn encode(numbers: &[f32], dtype: HiddenDtype, to: &mut Vec<u8>) {
    to.reserve(numbers.len() * size(dtype));
    match dtype {
        HiddenDtype::F32 => numbers.iter().for_each(|n| to.extend_from_slice(&n.to_le_bytes())),
        HiddenDtype::F16 => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            halves.iter().for_each(|n| to.extend_from_slice(&n.to_le_bytes()));
        }
        HiddenDtype::Bf16 => {
            let mut halves = vec![bf16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            halves.iter().for_each(|n| to.extend_from_slice(&n.to_le_bytes()));
        }
    }
}

fn decode(bytes: &[u8], dtype: HiddenDtype) -> Vec<f32> {
    match dtype {
        HiddenDtype::F32 => bytes.as_chunks().0.iter().map(|&n| f32::from_le_bytes(n)).collect(),
        HiddenDtype::F16 => bytes.as_chunks().0.iter().map(|&n| f16::from_le_bytes(n).to_f32()).collect(),
        HiddenDtype::Bf16 => bytes.as_chunks().0.iter().map(|&n| bf16::from_le_bytes(n).to_f32()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    #[test]
    fn numbers_arrive_as_they_were_computed() {
        let (mut here, mut there) = pair();
        // All of these are numbers of every type.
        let numbers = vec![0.0, -1.5, 0.03125, 240.0, f32::INFINITY];
        for (number, dtype) in (0..).zip([HiddenDtype::F32, HiddenDtype::F16, HiddenDtype::Bf16]) {
            send(&mut here, number, &Ok(numbers.clone()), dtype).unwrap();
            assert_eq!(receive(&mut there, number, 5, dtype).unwrap().unwrap(), numbers, "{dtype:?}");
        }
        send(&mut here, 7, &Err("no memory".into()), HiddenDtype::F32).unwrap();
        assert_eq!(receive(&mut there, 7, 5, HiddenDtype::F32).unwrap().unwrap_err(), "no memory");
    }

    #[test]
    fn another_step_or_another_length_is_an_error() {
        for (number, len) in [(8, 2), (7, 3)] {
            let (mut here, mut there) = pair();
            send(&mut here, 7, &Ok(vec![1.0, 2.0]), HiddenDtype::F32).unwrap();
            let error = receive(&mut there, number, len, HiddenDtype::F32).unwrap_err();
            assert_eq!(error, format!("it sent 8 bytes of step 7 in place of {len} numbers of step {number}"));
        }
    }
}
