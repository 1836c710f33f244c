//! What operations a graph is made of, noted while it is built.

use std::{cell::RefCell, collections::HashMap, ffi::CStr};

use super::placement::{Value, place};
use crate::{
    Result, Tensor,
    ffi::{
        Kernel, array_id,
        program::{Call, Operand, Place, Program},
    },
};

/// One of our operations. The handles keep every array alive, and with it the id that tells it from others.
pub(crate) struct Recorded {
    pub name: &'static CStr,
    pub kernel: Kernel,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

thread_local! {
    static RECORDING: RefCell<Option<Vec<Recorded>>> = const { RefCell::new(None) };
}

/// Notes an operation if this thread is recording.
pub(crate) fn note(operation: impl FnOnce() -> Recorded) {
    RECORDING.with_borrow_mut(|recording| {
        if let Some(operations) = recording {
            operations.push(operation());
        }
    });
}

/// Builds a graph and notes the operations of ours in it, in order.
pub(crate) fn record<T>(build: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Recorded>)> {
    RECORDING.set(Some(Vec::new()));
    let built = build();
    let operations = RECORDING.take().unwrap_or_default();
    Ok((built?, operations))
}

/// The operations as a program that computes `result`; `given` are the arrays whose elements each run brings along.
///
/// # Errors
/// Which operation reads something that the program couldn't know: what another operation than ours computes, or an
/// array that `is_constant` doesn't vouch for.
pub(crate) fn compile(
    operations: Vec<Recorded>,
    result: &Tensor,
    given: &[&Tensor],
    is_constant: impl Fn(usize) -> bool,
) -> Result<Program, String> {
    let mut values: Vec<Value> = Vec::new();
    let mut number_of: HashMap<usize, usize> = HashMap::new();
    for (at, operation) in operations.iter().enumerate() {
        for input in &operation.inputs {
            if let Some(&number) = number_of.get(&array_id(input)) {
                values[number].last_use = at;
            }
        }
        for output in &operation.outputs {
            number_of.insert(array_id(output), values.len());
            values.push(Value { bytes: output.nbytes(), made: at, last_use: at });
        }
    }
    let Some(&last) = number_of.get(&array_id(result)) else {
        return Err("the step's result comes from an operation of MLX's".into());
    };
    values[last].last_use = operations.len();
    let offsets = place(&values);
    let scratch = |array: &Tensor, number: usize| Operand::new(Place::Scratch(offsets[number]), array);
    let source = |name: &CStr, array: &Tensor| {
        let id = array_id(array);
        let operand = if let Some(&number) = number_of.get(&id) {
            scratch(array, number)
        } else if let Some(number) = given.iter().position(|given| array_id(given) == id) {
            Operand::new(Place::Given(number), array)
        } else if is_constant(id) {
            Operand::new(Place::Constant(array.clone()), array)
        } else {
            None
        };
        operand.ok_or_else(|| format!("{} reads an array that changes from step to step", name.to_string_lossy()))
    };
    let result = scratch(result, last).ok_or("the step's result is not in f32")?;
    let calls = operations.iter().map(|operation| {
        let Recorded { name, kernel, inputs, outputs } = operation;
        let target = |array: &Tensor| {
            let operand = scratch(array, number_of[&array_id(array)]);
            operand.ok_or_else(|| format!("{} gives something else than f32", name.to_string_lossy()))
        };
        Ok(Call {
            name,
            kernel: kernel.clone(),
            inputs: inputs.iter().map(|array| source(name, array)).collect::<Result<_, String>>()?,
            outputs: outputs.iter().map(target).collect::<Result<_, String>>()?,
        })
    });
    Ok(Program::new(calls.collect::<Result<_, String>>()?, result))
}
