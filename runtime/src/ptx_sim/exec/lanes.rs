//! Instructions that every lane does by itself: a function of up to three values, over all lanes at once.

use super::registers::{LANES, Lane, Reg, Registers};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;

/// Does an instruction in the lanes of a mask.
pub type LaneFn = Box<dyn Fn(&mut Registers, u32) + Send + Sync>;

struct Lanes<'r, T, F> {
    registers: &'r mut Registers,
    mask: u32,
    to: Reg,
    from: [Reg; 3],
    apply: F,
    types: PhantomData<T>,
}

macro_rules! lanes {
    ($doc:literal, $name:ident, $($ty:ident $value:ident $row:ident $n:literal),*) => {
        impl<D: Lane, $($ty: Lane,)* F: Fn($($ty),*) -> D> WithSimd for Lanes<'_, (D, $($ty,)*), F> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) {
                $(let $row = $ty::row(self.registers, self.from[$n].row);)*
                let mut values = D::EMPTY;
                for lane in 0..LANES {
                    D::set(&mut values, lane, (self.apply)($($ty::get(&$row, lane)),*));
                }
                D::put(self.registers, self.to.row, self.mask, &values);
            }
        }

        #[doc = $doc]
        pub fn $name<D, $($ty,)* F>(to: Reg, $($value: Reg,)* apply: F) -> LaneFn
        where
            D: Lane + 'static,
            $($ty: Lane + 'static,)*
            F: Fn($($ty),*) -> D + Copy + Send + Sync + 'static,
        {
            let mut from = [to; 3];
            $(from[$n] = $value;)*
            Box::new(move |registers, mask| {
                let arch = registers.arch;
                arch.dispatch(Lanes { registers, mask, to, from, apply, types: PhantomData::<(D, $($ty,)*)> });
            })
        }
    };
}

lanes!("A function of one value.", unary, A a row_a 0);
lanes!("A function of two values.", binary, A a row_a 0, B b row_b 1);
lanes!("A function of three values.", ternary, A a row_a 0, B b row_b 1, C c row_c 2);
