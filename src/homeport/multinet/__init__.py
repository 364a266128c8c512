"""From a pod's annotations to the attachments it wants, and back to its status. No I/O."""
