package index

import "syscall"

// adviseHuge asks for a huge page. At 10 million keys no TLB holds the table in pages of 4 KiB, and a look-up
// would wait for a page table entry before it waits for the bucket. A refusal costs only that.
func adviseHuge(b []byte) { _ = syscall.Madvise(b, syscall.MADV_HUGEPAGE) }
