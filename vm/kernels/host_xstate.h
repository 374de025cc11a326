/*
 * Ours, added to User-mode Linux 6.1 (vm/kernels/uml.py) for CPUs whose extended state is larger
 * than the 2696 bytes that it keeps of each process (FP_SIZE), as with Intel AMX: 11008.
 *
 * ptrace(2) reads a part of the state, but the host's kernel takes only all of it back: else
 * xstateregs_set() in arch/x86/kernel/fpu/regset.c says EFAULT. Linux 6.13 asks the host for the
 * size (commit 3f17fed21491, "um: switch to regset API and depend on XSTATE").
 */
#define HOST_XSTATE_ROOM 16384
#define HOST_XSTATE_BV 512
/*
 * Up to PKRU, and APX in the place that MPX had. The guest has nothing else in use: AMX has to be
 * asked for with arch_prctl(2), and the host grants none through ptrace(2), as User-mode Linux asks.
 */
#define HOST_XSTATE_KEPT (0x3ffUL | 1UL << 19)

/*
 * The state in iov, as long as the host wants it (ptrace(2) clips ours): what was not kept is in
 * its initial state.
 */
static struct iovec *whole_xstate(struct iovec *iov)
{
	/* One CPU, and no preemption between this and ptrace(). */
	static unsigned char whole[HOST_XSTATE_ROOM];

	memcpy(whole, iov->iov_base, iov->iov_len);
	*(unsigned long *) (whole + HOST_XSTATE_BV) &= HOST_XSTATE_KEPT;
	iov->iov_base = whole;
	iov->iov_len = sizeof(whole);
	return iov;
}
