//! Which pages of the caches hold whose columns.
//!
//! A page is some consecutive columns of one row. Full pages never change, so rows that begin alike share them; a page is
//! free again when nobody holds it.

/// Pages in use, by how many hold them.
#[derive(Debug)]
pub(crate) struct Pages {
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl Pages {
    /// So many free pages.
    pub fn new(pages: usize) -> Self {
        let all = u32::try_from(pages).expect("a page holds many bytes");
        Self { holders: vec![0; pages], free: (0..all).rev().collect() }
    }

    /// A free page, now held once; `None` if all are held.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// Holds a page once more.
    pub fn hold(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    /// Lets go of a page.
    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders = holders.checked_sub(1).expect("a page that is released was held");
        if *holders == 0 {
            self.free.push(page);
        }
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_its_last_holder_lets_go() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take().unwrap(), pages.take().unwrap());
        assert_eq!((a, b, pages.take()), (0, 1, None));
        pages.hold(a);
        pages.release(a);
        assert_eq!(pages.free(), 0);
        pages.release(a);
        assert_eq!((pages.free(), pages.take()), (1, Some(0)));
    }
}
