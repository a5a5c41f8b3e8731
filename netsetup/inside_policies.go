package netsetup

import "fmt"

// ConfigurePolicies does the container half of the policies on an interface that is
// finished, as an Attachment with Configured says, or a plugin's previous result. A
// second time it changes nothing.
func ConfigurePolicies(in *Inside, a Attachment) error {
	if a.Tuning == nil && a.Sources == nil && a.VRF == nil {
		return nil
	}
	l, err := in.c.linkByName(a.IfName)
	if err != nil {
		return err
	}
	if _, err := in.joinVRF(l, a.VRF); err != nil {
		return fmt.Errorf("%s: vrf: %w", a.IfName, err)
	}
	if err := in.tune(l, a.Tuning); err != nil {
		return fmt.Errorf("%s: tuning: %w", a.IfName, err)
	}
	return in.policiesAtEnd(l, a)
}

// policiesAtEnd does what needs the addresses and routes.
func (in *Inside) policiesAtEnd(l link, a Attachment) error {
	if err := in.routeBySource(l, a.Sources); err != nil {
		return fmt.Errorf("%s: sbr: %w", a.IfName, err)
	}
	if err := in.takeIPv6(a.Tuning); err != nil {
		return fmt.Errorf("%s: tuning: %w", a.IfName, err)
	}
	return nil
}
