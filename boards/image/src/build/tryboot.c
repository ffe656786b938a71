// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Asks the firmware of a Raspberry Pi for a trial boot when the machine is restarted with the word "tryboot". The kernel of
// Raspberry Pi does so by itself (drivers/firmware/raspberrypi.c), Linux does not, and so neither does Debian's. Not needed any
// more once Linux does.
//
// A module for Debian's kernel, and a part of the kernel of `--tiny` images.

#ifdef MODULE
#define INCLUDE_VERMAGIC
#include <linux/build-salt.h>
#include <linux/vermagic.h>
#endif
#include <linux/init.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/reboot.h>
#include <linux/string.h>
#include <soc/bcm2835/raspberrypi-firmware.h>

#define SET_REBOOT_FLAGS ((enum rpi_firmware_property_tag)0x00038064)
#define TRYBOOT 1

static struct rpi_firmware *firmware;

static int restarts(struct notifier_block *block, unsigned long action, void *word)
{
	u32 flags = TRYBOOT;

	if (action == SYS_RESTART && word && strstr(word, "tryboot")) {
		int error = rpi_firmware_property(firmware, SET_REBOOT_FLAGS, &flags, sizeof(flags));

		if (error)
			pr_err("holm-tryboot: the firmware takes no trial: %d\n", error);
		else
			pr_info("holm-tryboot: the firmware is asked for a trial\n");
	}
	return NOTIFY_DONE;
}

static struct notifier_block block = { .notifier_call = restarts };

// There is no way to unload it: holm-init forbids that anyway.
static int __init begin(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "raspberrypi,bcm2835-firmware");

	if (!node)
		return -ENODEV;
	firmware = rpi_firmware_get(node);
	of_node_put(node);
	return firmware ? register_reboot_notifier(&block) : -ENODEV;
}

// In the kernel: when the driver of the firmware has begun, and all that it waits for.
late_initcall_sync(begin);
MODULE_DESCRIPTION("Trial boots of a Raspberry Pi");
MODULE_LICENSE("GPL");

#ifdef MODULE
// What modpost would add: the kernel that it is for, and the versions of what it calls.
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(depends, "");
__visible struct module __this_module __section(".gnu.linkonce.this_module") = {
	.name = KBUILD_MODNAME,
	.init = init_module,
	.arch = MODULE_ARCH_INIT,
};
static const struct modversion_info versions[] __used __section("__versions") = { VERSIONS };
#endif
