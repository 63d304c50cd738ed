//! Instructions one by one: operands in, result out, by hand.

use super::{by_thread, launch, source};

/// An instruction, the types of its operands from the result on, the bits of those that are read, and of the result.
///
/// Operands are `d, a, b, c, e` in order, unless the instruction says otherwise.
pub type Row<'r> = (&'r str, &'r str, &'r [u64], u64);

/// Bits of a binary32.
pub const fn f(value: f32) -> u64 {
    value.to_bits() as u64
}

/// Bits of a binary64.
pub const fn g(value: f64) -> u64 {
    value.to_bits()
}

/// The NaN that binary32 arithmetic gives.
pub const NAN: u64 = 0x7fff_ffff;

/// The NaN that arithmetic on halves gives.
pub const HALF_NAN: u64 = 0x7fff;

const NAMES: [&str; 5] = ["d", "a", "b", "c", "e"];

fn width(ty: &str) -> u32 {
    match ty {
        "pred" => 1,
        "f16x2" | "bf16x2" => 32,
        "bf16" => 16,
        _ => ty.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a type with a width"),
    }
}

/// The program of a row; lanes from 16 on leave the result as it was, which is all ones.
pub fn program(&(instruction, types, inputs, _): &Row<'_>) -> String {
    let types: Vec<&str> = types.split(' ').collect();
    assert_eq!(types.len(), inputs.len() + 1, "{instruction}: a type for every operand");
    let mut body =
        String::from(".reg .pred low, other; setp.lt.u32 low, tid, 16;\n.reg .b16 zero; mov.b16 zero, 0;\n");
    let mut put = |name: &str, ty: &str, bits: u64| {
        body += &format!(".reg .{ty} {name}; ");
        body += &match width(ty) {
            1 => format!("setp.ne.u32 {name}, {bits}, 0;\n"),
            bits_of => format!("mov.b{bits_of} {name}, {bits:#x};\n"),
        };
    };
    put("d", types[0], u64::MAX >> (64 - width(types[0])));
    for ((name, ty), bits) in NAMES[1..].iter().zip(&types[1..]).zip(inputs) {
        put(name, ty, *bits);
    }
    let operands = if instruction.contains(' ') { String::new() } else { NAMES[..types.len()].join(", ") };
    body += &format!("@low {instruction} {operands};\n");
    body += match width(types[0]) {
        1 => "selp.u32 result, 1, 0, d; mov.b64 both, {result, result};",
        16 => "mov.b32 result, {d, zero}; mov.b64 both, {result, result};",
        32 => "mov.b32 result, d; mov.b64 both, {result, result};",
        _ => "mov.b64 both, d;",
    };
    format!(
        ".reg .u32 tid, result; .reg .u64 out_ptr, at; .reg .b64 both;\nmov.u32 tid, %tid.x;\n{body}\n\
         ld.param.u64 out_ptr, [out]; mad.wide.u32 at, tid, 8, out_ptr;\nst.global.b64 [at], both;\nret;"
    )
}

/// Runs every row and fails with all that give something else.
pub fn check(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for row in rows {
        let (instruction, types, inputs, want) = row;
        let kept = u64::MAX >> (64 - width(types.split(' ').next().expect("the result's type")).max(1));
        let text = source(32, &program(row));
        match launch(&text, 1, 64) {
            Err(said) => wrong.push(format!("{instruction}: {said}")),
            Ok(words) => {
                for lane in 0..32 {
                    let both = u64::from(words[2 * lane + 1]) << 32 | u64::from(words[2 * lane]);
                    let got = both & if kept > u64::from(u32::MAX) { u64::MAX } else { u64::from(u32::MAX) };
                    let want = if lane < 16 { *want } else { kept };
                    if got != want {
                        wrong.push(format!(
                            "{instruction} of {types}, {inputs:x?}: lane {lane} got {got:#x}, want {want:#x}"
                        ));
                        break;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The result of an instruction of binary32 in every lane, for operands that differ by lane.
pub fn of_lanes(instruction: &str, operand: impl Fn(u32) -> u32) -> Vec<f32> {
    let mut body = String::from(".reg .f32 a, d; .reg .pred p; .reg .b32 bits;\n");
    for lane in 0..32 {
        body += &format!("setp.eq.u32 p, tid, {lane}; @p mov.b32 bits, {:#x};\n", operand(lane));
    }
    body += &format!("mov.b32 a, bits; {instruction} d, a; mov.b32 result, d;");
    by_thread(32, &body).unwrap().into_iter().map(f32::from_bits).collect()
}
