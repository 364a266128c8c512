"""What the kubelet knows of devices."""
