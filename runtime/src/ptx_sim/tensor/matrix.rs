//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Layout: PTX ISA, "Warp-level matrix load instruction: ldmatrix". Lane `8 m + r` gives the address of row r of matrix
//! m, 16 bytes. Register m of lane l holds elements `2 (l % 4)` and `+ 1` of row `l / 4` of matrix m; with `.trans` it
//! holds rows `2 (l % 4)` and `+ 1` of column `l / 4`.

use super::Register;
use super::numbers::halves;
use crate::ptx_sim::fault::{FaultKind, Refusal};

/// How a matrix lies in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A register holds two elements of a row.
    Rows,
    /// `.trans`: a register holds two elements of a column.
    Columns,
}

/// `ldmatrix.sync.aligned.m8n8.xN.shared.b16`: N = `into.len()` matrices.
///
/// `read(lane, address, row)` reads the 16 bytes that `lane` points at.
pub fn load(
    order: Order,
    addresses: &Register,
    into: &mut [Register],
    mut read: impl FnMut(u32, u32, &mut [u8; 16]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for (number, register) in into.iter_mut().enumerate() {
        let mut matrix = [[0; 8]; 8];
        for (row, elements) in matrix.iter_mut().enumerate() {
            let (lane, address) = pointed(addresses, number, row)?;
            let mut bytes = [0; 16];
            read(lane, address, &mut bytes)?;
            for (element, bytes) in elements.iter_mut().zip(bytes.as_chunks().0) {
                *element = u16::from_le_bytes(*bytes);
            }
        }
        for (lane, bits) in register.iter_mut().enumerate() {
            let [low, high] = place(order, lane).map(|(row, column)| u32::from(matrix[row][column]));
            *bits = low | high << 16;
        }
    }
    Ok(())
}

/// `stmatrix.sync.aligned.m8n8.xN.shared.b16`: N = `from.len()` matrices.
///
/// `write(lane, address, row)` writes the 16 bytes that `lane` points at.
pub fn store(
    order: Order,
    addresses: &Register,
    from: &[Register],
    mut write: impl FnMut(u32, u32, &[u8; 16]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for (number, register) in from.iter().enumerate() {
        let mut matrix = [[0; 8]; 8];
        for (lane, bits) in register.iter().enumerate() {
            for ((row, column), half) in place(order, lane).into_iter().zip(halves(*bits)) {
                matrix[row][column] = half;
            }
        }
        for (row, elements) in matrix.iter().enumerate() {
            let (lane, address) = pointed(addresses, number, row)?;
            let mut bytes = [0; 16];
            for (bytes, element) in bytes.as_chunks_mut().0.iter_mut().zip(elements) {
                *bytes = element.to_le_bytes();
            }
            write(lane, address, &bytes)?;
        }
    }
    Ok(())
}

/// The lane that points at a row of a matrix, and where to.
fn pointed(addresses: &Register, matrix: usize, row: usize) -> Result<(u32, u32), Refusal> {
    let lane = 8 * matrix + row;
    let address = addresses[lane];
    if !address.is_multiple_of(16) {
        return Err(Refusal {
            kind: FaultKind::Misaligned,
            detail: format!(
                "lane {lane} points at {address:#x} in shared memory, expected a multiple of 16 (a row)"
            ),
        });
    }
    Ok((u32::try_from(lane).expect("a warp has 32 lanes"), address))
}

/// Row and column of the two elements that a lane holds.
fn place(order: Order, lane: usize) -> [(usize, usize); 2] {
    let (major, minor) = (lane / 4, 2 * (lane % 4));
    match order {
        Order::Rows => [(major, minor), (major, minor + 1)],
        Order::Columns => [(minor, major), (minor + 1, major)],
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Register, load, store};

    /// Memory whose 16-bit element at byte `a` is `a / 2`.
    fn counted(address: u32, row: &mut [u8; 16]) {
        for (i, element) in row.as_chunks_mut().0.iter_mut().enumerate() {
            *element = u16::try_from(address / 2 + u32::try_from(i).unwrap()).unwrap().to_le_bytes();
        }
    }

    /// Rows far apart and in reverse order within each matrix.
    fn addresses() -> Register {
        std::array::from_fn(|lane| {
            let lane = u32::try_from(lane).unwrap();
            1024 * (lane / 8) + 48 * (7 - lane % 8)
        })
    }

    #[test]
    fn four_matrices_land_in_four_registers() {
        for order in [Order::Rows, Order::Columns] {
            let mut registers = [[0; 32]; 4];
            let mut lanes = Vec::new();
            load(order, &addresses(), &mut registers, |lane, address, row| {
                lanes.push(lane);
                counted(address, row);
                Ok(())
            })
            .unwrap();
            assert_eq!(lanes, (0..32).collect::<Vec<_>>());
            for (m, register) in (0..).zip(&registers) {
                for (lane, bits) in (0..).zip(register) {
                    let element = |row: u32, column: u32| (1024 * m + 48 * (7 - row)) / 2 + column;
                    let (major, minor) = (lane >> 2, 2 * (lane % 4));
                    let want = match order {
                        Order::Rows => element(major, minor) | element(major, minor + 1) << 16,
                        Order::Columns => element(minor, major) | element(minor + 1, major) << 16,
                    };
                    assert_eq!(*bits, want, "{order:?} matrix {m} lane {lane}");
                }
            }
        }
    }

    #[test]
    fn one_matrix_asks_eight_lanes() {
        let mut register = [[0; 32]; 1];
        let mut lanes = Vec::new();
        load(Order::Rows, &addresses(), &mut register, |lane, _, _| {
            lanes.push(lane);
            Ok(())
        })
        .unwrap();
        assert_eq!(lanes, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_stored_is_loaded_again() {
        let registers: [Register; 2] = std::array::from_fn(|m| {
            std::array::from_fn(|lane| u32::try_from(m * 1000 + lane * 7).unwrap() * 0x0001_0003)
        });
        for order in [Order::Rows, Order::Columns] {
            let mut memory = vec![0; 4096];
            store(order, &addresses(), &registers, |_, address, row| {
                memory[address as usize..][..16].copy_from_slice(row);
                Ok(())
            })
            .unwrap();
            let mut again = [[0; 32]; 2];
            load(order, &addresses(), &mut again, |_, address, row| {
                row.copy_from_slice(&memory[address as usize..][..16]);
                Ok(())
            })
            .unwrap();
            assert_eq!(again, registers, "{order:?}");
        }
    }

    #[test]
    fn rows_are_aligned() {
        let mut addresses = addresses();
        addresses[3] += 8;
        let refused = load(Order::Rows, &addresses, &mut [[0; 32]; 1], |_, _, _| Ok(())).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "misaligned: lane 3 points at 0xc8 in shared memory, expected a multiple of 16 (a row)"
        );
    }
}
