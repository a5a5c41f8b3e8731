// Package lsm applies an AppArmor profile and an SELinux label to the program that a
// container executes, and refuses what the kernel can't apply: a label or profile that was asked
// for is in force, or there is an error.
//
// Config.Validate is for the host side, before anything is made. The Apply functions act on the calling
// thread, which the caller has locked and will execute from: the kernel lets a thread write its own
// attributes only.
package lsm
